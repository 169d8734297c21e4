"""The only composer of stages: what is exported from what, what is compared with what, and what was done before."""
