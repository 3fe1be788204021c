"""What the robot can say in advance of a cloud that will refuse its features."""

from __future__ import annotations

from msfc.wire.packet import DecodeLimits, FeaturePacket


def beyond_limits(packet: FeaturePacket, limits: DecodeLimits | None = None) -> dict[str, str]:
    """Return why a receiver will refuse a packet as too large, in words, by the limit's name.

    Args:
        packet: the packet.
        limits: those of the receiver; by default those that a cloud has by default.
    """
    limits = limits or DecodeLimits()
    height, width = packet.image_size
    padded_height, padded_width = packet.padded_size
    image, padded = f'{width} x {height}', f'{padded_width} x {padded_height}'
    checks = {
        'max_image_side': (max(packet.image_size), f'images of {image}'),
        'max_image_pixels': (height * width, f'images of {image}, {height * width} pixels,'),
        'max_padded_side': (max(packet.padded_size), f'network inputs of {padded}'),
        'max_payload_bytes': (packet.payload_bytes, f'payloads of {packet.payload_bytes} bytes'),
    }
    return {
        name: f'{what} exceed limits.{name}, {getattr(limits, name)}'
        for name, (value, what) in checks.items()
        if value > getattr(limits, name)
    }
