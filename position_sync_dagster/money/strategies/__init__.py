"""Strategies: what is proposed, the rules that choose and roll their legs, and their limits.

Decisions are pure; `leg_followers` applies them to the registry.
"""
