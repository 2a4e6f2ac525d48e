"""dxc.py LIBRARY FILE...: DXC compiles naga's HLSL (`.sm60.hlsl`, `.sm66.hlsl`) with wgpu's options.

DXC's interface is COM's, without Windows: an object begins with a pointer to its table of methods. On
Linux a virtual destructor, two entries, stands after the three methods of IUnknown.
"""

import ctypes
import sys
import uuid

FIRST = 5
UTF8 = 65001
MODELS = {"sm60": "cs_6_0", "sm66": "cs_6_6"}


def guid(text):
    return (ctypes.c_byte * 16)(*uuid.UUID(text).bytes_le)


COMPILER = guid("73e22d93-e6ce-47f3-b5bf-f0664f39c1b0")
IDXC_COMPILER3 = guid("228b4687-5a6a-4730-900c-9702b2203f54")
IDXC_RESULT = guid("58346cda-dde7-4497-9461-6f87af5e0659")


class Buffer(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("size", ctypes.c_size_t), ("encoding", ctypes.c_uint32)]


def method(thing, place, result, *arguments):
    """The method at a place of a table, bound to its object."""
    table = ctypes.cast(thing, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p))).contents
    function = ctypes.CFUNCTYPE(result, ctypes.c_void_p, *arguments)(table[FIRST + place])
    return lambda *values: function(thing, *values)


def compiler(path):
    create = ctypes.CDLL(path).DxcCreateInstance
    made = ctypes.c_void_p()
    code = create(COMPILER, IDXC_COMPILER3, ctypes.byref(made))
    if code or not made:
        sys.exit(f"{path} gives no compiler: {code & 0xFFFFFFFF:#x}")
    return made


def compile_file(dxc, path):
    """What is wrong with a file; nothing if it compiles."""
    model = next(model for end, model in MODELS.items() if f".{end}." in path)
    options = ["-E", "main", "-T", model, "-HV", "2018", "-Ges", "-Vd"]
    if model == "cs_6_6":
        options.append("-enable-16bit-types")
    with open(path, "rb") as file:
        text = file.read()
    source = Buffer(text, len(text), UTF8)
    words = (ctypes.c_wchar_p * len(options))(*options)
    result = ctypes.c_void_p()
    types = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32] + [ctypes.c_void_p] * 3
    run = method(dxc, 0, ctypes.c_int32, *types)
    code = run(ctypes.byref(source), words, len(options), None, IDXC_RESULT, ctypes.byref(result))
    if code or not result:
        return f"the call gives {code & 0xFFFFFFFF:#x}"
    status = ctypes.c_int32()
    method(result, 0, ctypes.c_int32, ctypes.c_void_p)(ctypes.byref(status))
    if status.value == 0:
        return None
    errors = ctypes.c_void_p()
    method(result, 2, ctypes.c_int32, ctypes.c_void_p)(ctypes.byref(errors))
    said = method(errors, 0, ctypes.c_void_p)()
    return ctypes.string_at(said).decode(errors="replace")[:600]


def main():
    library, *files = sys.argv[1:]
    if not files:
        sys.exit("no file to compile")
    dxc = compiler(library)
    wrong = [(path, reason) for path in files if (reason := compile_file(dxc, path))]
    for path, reason in wrong:
        print(f"{path}: {reason}")
    print(f"DXC compiles {len(files) - len(wrong)} of {len(files)} files")
    sys.exit(1 if wrong else 0)


main()
