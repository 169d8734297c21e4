# Says what this machine has, a fact a line: a key, a space, what it is. It changes nothing, asks for no root, and ends with the line `end`.
# For any POSIX shell (dash, busybox). Arguments: the Python to ask, then the files that may be the device's lease.

newline='
'
say() { # the first line of what it is; programs are slow to start where a processor is emulated, so none is
    value=${2%%"$newline"*}
    [ -z "$value" ] || printf '%s %.300s\n' "$1" "$value"
}
limited() { # seconds, then a command: what hangs there must not hang here
    if command -v timeout >/dev/null 2>&1; then timeout "$@"; else shift && "$@"; fi
}
emulator() { # what runs this program's instructions, where that is no processor
    if [ -n "$DTVIT_DEPLOY_EMULATED$QEMU_CPU" ]; then # by whoever set this up
        echo "${DTVIT_DEPLOY_EMULATED:-qemu-user}"
        return
    fi
    if [ "$system" = Darwin ] && [ "$(sysctl -n sysctl.proc_translated 2>/dev/null)" = 1 ]; then
        echo Rosetta
        return
    fi
    if [ "$system" = Linux ] && [ ! -e /proc/self ]; then
        echo "or a real one: /proc is not there to tell"
        return
    fi
    # Of its own process an emulator hides it, so the link is read by another one.
    program=$(readlink "/proc/$$/exe" 2>/dev/null)
    case ${program##*/} in
        qemu-* | box64* | box86* | FEX* | rosetta*) echo "${program##*/}" && return ;;
    esac
    if grep -q VirtualApple /proc/cpuinfo 2>/dev/null; then
        echo Rosetta
    elif grep -qE 'QEMU (TCG|Virtual) CPU' /proc/cpuinfo 2>/dev/null; then
        echo "QEMU, a whole machine"
    elif [ "$(limited 5 systemd-detect-virt --vm 2>/dev/null)" = qemu ]; then # with a real processor behind it, it says kvm
        echo "QEMU, a whole machine"
    else
        case $machine in
            aarch64 | arm*) grep -qE '^vendor_id.*(Intel|AMD)' /proc/cpuinfo 2>/dev/null && echo "something on an x86 processor" ;;
            x86_64 | i?86) grep -q '^CPU implementer' /proc/cpuinfo 2>/dev/null && echo "something on an ARM processor" ;;
        esac
    fi
}

probe() {
    python=$1
    shift
    system=$(uname -s)
    machine=$(uname -m)
    say system "$system"
    say release "$(uname -r)"
    say architecture "$machine"
    say distribution "$(sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' /etc/os-release 2>/dev/null)"
    say user "$(id -un 2>/dev/null)"
    say model "$({ cat /proc/device-tree/model || cat /sys/class/dmi/id/product_name || sysctl -n hw.model; } 2>/dev/null | tr -d '\000')"
    say processor "$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null)"
    say emulator "$(emulator)"
    say l4t "$(cat /etc/nv_tegra_release 2>/dev/null)"
    say jetpack "$(dpkg-query -W -f '${Version}' nvidia-jetpack 2>/dev/null)"
    if [ "$system $machine" = "Darwin arm64" ]; then
        case $(sysctl -n hw.optional.arm.FEAT_FP16 2>/dev/null) in
            1) say half yes ;;
            0) say half no ;;
        esac
    fi
    say driver "$(sed -n 's/^NVRM version:.*Kernel Module\( for [^ ]*\)\{0,1\} *\([0-9.]*\).*$/\2/p' /proc/driver/nvidia/version 2>/dev/null)"
    mode=$(limited 5 nvpmodel -q 2>/dev/null | sed -n 's/^NV Power Mode: *//p')
    say power_mode "${mode:-$(cat /sys/firmware/acpi/platform_profile 2>/dev/null)}"
    say governor "$(cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null)"
    say memory_kib "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo 2>/dev/null)"
    case $XDG_CACHE_HOME in
        /*) place=$XDG_CACHE_HOME ;;
        *) place=${HOME:-/nonexistent}/.cache ;; # a relative one is none, by the XDG Base Directory Specification
    esac
    say cache "$place"
    kept=$place/dtvit-deploy-device
    while [ ! -e "$place" ] && [ "$place" != "${place%/*}" ] && [ -n "${place%/*}" ]; do place=${place%/*}; done
    if [ -d "$kept" ]; then kept=$(du -sk "$kept" 2>/dev/null); else kept=0; fi
    say kept_kib "${kept%%[!0-9]*}"
    if [ -d "$place" ] && [ -w "$place" ]; then say cache_writable yes; else say cache_writable no; fi
    [ -d "$place" ] || place=/
    say disk_kib "$(df -Pk "$place" 2>/dev/null | sed -n '2s/^.* \([0-9]\{1,\}\) \{1,\}[0-9]\{1,3\}% .*$/\1/p')"

    path=$(command -v "$python" 2>/dev/null)
    # Without its developer's tools a Mac has this program only to ask, in a window, whether to install them.
    [ "$system $path" = "Darwin /usr/bin/python3" ] && ! xcode-select -p >/dev/null 2>&1 && path=
    case $path in
        /*) ;;
        ?*) path=$PWD/$path ;;
    esac
    if [ -n "$path" ]; then
        say python "$path"
        limited 100 "$path" - "$@" 2>/dev/null <<'PYTHON' || say python_failed "status $?"
import os, sys

if sys.path and sys.path[0] == "":  # where this began, anybody's file could be taken for a package
    del sys.path[0]


def say(key, value):
    value = "".join(each if 32 <= ord(each) < 127 else " " for each in str(value)).strip()[:300]
    if value:
        sys.stdout.write("%s %s\n" % (key, value))


def package(module, distribution, imported):
    from importlib import metadata, util

    if util.find_spec(module) is None:
        return
    try:
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:  # a variant of it, under another name
        version, imported = "", True
    if imported:
        try:
            found = __import__(module)
        except Exception as error:
            say("broken", "%s %s: %s" % (module, type(error).__name__, error))
            return
        version = version or getattr(found, "__version__", "unknown")
    say("package", "%s %s" % (module, version))


def half():
    # As runtimes ask, since /proc/cpuinfo may be that of the machine around an emulator. 16 is AT_HWCAP, its bits 9 and 10 are HWCAP_FPHP
    # and HWCAP_ASIMDHP of a 64-bit process.
    import ctypes

    ask = ctypes.CDLL(None).getauxval
    ask.restype, ask.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    say("half", "yes" if ask(16) >> 9 & 3 == 3 else "no")


def gpu():  # asked of NVIDIA's driver itself, in C: no package has to be there for that
    try:
        import ctypes

        driver = ctypes.CDLL("libcuda.so.1")
    except (ImportError, OSError):
        return "no NVIDIA driver is installed (libcuda.so.1 cannot be loaded)"
    number, version, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    status = driver.cuInit(0) or driver.cuDriverGetVersion(ctypes.byref(version)) or driver.cuDeviceGetCount(ctypes.byref(number))
    if status or not number.value:
        return "the NVIDIA driver finds no GPU (CUDA error %d)" % status
    major, minor = ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGet(ctypes.byref(device), 0)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    say("gpu", name.value.decode("ascii", "replace"))
    say("capability", "%d.%d" % (major.value, minor.value))
    say("cuda", "%d.%d" % (version.value // 1000, version.value % 1000 // 10))


say("python_version", "%d.%d.%d" % sys.version_info[:3])
if os.uname()[4] == "aarch64" and sys.maxsize > 2**32:
    try:
        half()
    except (ImportError, AttributeError, OSError):
        pass  # a Python without ctypes, a C library without getauxval: then it is not told
if sys.version_info >= (3, 8):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # a module without metadata is imported for its version, and would leave files there
    package("numpy", "numpy", True)  # half of what goes wrong with it shows only then
    for module in ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "coremltools"):
        package(module, module, False)
    try:
        package("cuda.bindings", "cuda-bindings", False)
    except ImportError:  # nothing of NVIDIA's is there
        pass
    import fcntl

    named = os.environ.get("DTVIT_DEPLOY_LEASE")
    for path in [named] if named else sys.argv[1:]:
        try:
            held = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            say("holder", os.read(held, 300).decode("ascii", "replace") or "somebody")
        os.close(held)
    say("no_gpu", gpu() or "")  # last: it is native code of others
PYTHON
    fi
    say clock "$(date +%s)"
    echo end
}

# Whole before it begins, and nothing in it reads what is left of its own text.
probe "$@" </dev/null
