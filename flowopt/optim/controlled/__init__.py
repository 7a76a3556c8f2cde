"""Optimizers under a control."""
