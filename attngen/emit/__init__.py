"""Kernel text: lowering to tile operations, printers and templates."""
