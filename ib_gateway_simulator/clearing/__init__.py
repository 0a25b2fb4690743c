"""The broker's back office: what it books for its accounts, and its daily statements.

It knows cash by currency and holdings, nothing of gateways: books of many past sessions are kept
here, and their wealth is what a program that reads the statements must arrive at.
"""
