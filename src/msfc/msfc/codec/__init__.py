"""The codec: from a feature pyramid to a packet and back.

Modules follow the paper: :mod:`~msfc.codec.msff` (fusion), :mod:`~msfc.codec.ssfc` (channel
codec), :mod:`~msfc.codec.msfr` (reconstruction), all in :class:`MSFC`; then the quantiser, the bit
packing, the packet with its checks, and the counting of bits.
"""

from msfc.codec.accounting import bits_per_pixel, payload_bpfe, pyramid_elements
from msfc.codec.align import align
from msfc.codec.msfc import MSFC, MSFCConfig
from msfc.codec.msff import MSFF
from msfc.codec.msfr import MSFR
from msfc.codec.packet import (
    CODING_PACKED,
    DecodeLimits,
    FeaturePacket,
    PacketError,
    PacketSpec,
    RefusalReason,
    validate,
)
from msfc.codec.packing import pack, packed_size, unpack
from msfc.codec.quantizer import BIT_DEPTHS, dequantize, quantize, quantize_dequantize
from msfc.codec.ssfc import SSFCDecoder, SSFCEncoder

__all__ = [
    'BIT_DEPTHS',
    'CODING_PACKED',
    'MSFC',
    'MSFF',
    'MSFR',
    'DecodeLimits',
    'FeaturePacket',
    'MSFCConfig',
    'PacketError',
    'PacketSpec',
    'RefusalReason',
    'SSFCDecoder',
    'SSFCEncoder',
    'align',
    'bits_per_pixel',
    'dequantize',
    'pack',
    'packed_size',
    'payload_bpfe',
    'pyramid_elements',
    'quantize',
    'quantize_dequantize',
    'unpack',
    'validate',
]
