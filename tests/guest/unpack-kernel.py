"""Unpacks the kernel within a 32-bit ARM zImage and wraps it as a legacy uImage: unpack-kernel.py ZIMAGE UIMAGE ADDRESS.

QEMU loads a uImage to the address that its header says; the kernel hangs without a word at any other.
"""

import lzma
import struct
import sys
import zlib

XZ_MAGIC = b"\xfd7zXZ\0"
ARM, LINUX, KERNEL, UNCOMPRESSED = 2, 5, 2, 0


def payload(image):
    """The first thing after an XZ magic that is XZ and large: the decompressor's own code has the magic too."""
    at = image.find(XZ_MAGIC)
    while at >= 0:
        try:
            kernel = lzma.LZMADecompressor().decompress(image[at:])
            if len(kernel) > 1 << 20:
                return kernel
        except lzma.LZMAError:
            pass
        at = image.find(XZ_MAGIC, at + 1)
    sys.exit("there is no XZ kernel in it")


def header(kernel, address, checksum):
    return struct.pack(
        ">7I4B32s", 0x27051956, checksum, 0, len(kernel), address, address, zlib.crc32(kernel),
        LINUX, ARM, KERNEL, UNCOMPRESSED, b"linux",
    )


def main():
    source, destination, address = sys.argv[1], sys.argv[2], int(sys.argv[3], 0)
    with open(source, "rb") as file:
        kernel = payload(file.read())
    checksum = zlib.crc32(header(kernel, address, 0))
    with open(destination, "wb") as file:
        file.write(header(kernel, address, checksum) + kernel)


main()
