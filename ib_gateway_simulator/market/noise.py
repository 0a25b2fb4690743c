"""Repeatable noise: numbers that look random and are the same on every machine."""

from __future__ import annotations


def mix(*parts: int) -> int:
    """Return a 32 bit number made of the parts (splitmix64); nearby parts give distant numbers."""
    value = 0x9E3779B97F4A7C15
    for part in parts:
        value = (value ^ (part & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 29
    value = value * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return (value ^ (value >> 31)) & 0xFFFFFFFF
