"""Detection and segmentation on the maps of a backbone: RetinaNet, Mask R-CNN, DeepLabv3 and PSPNet, and the bare maps."""
