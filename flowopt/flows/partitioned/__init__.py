"""Flows whose blocks of parameters have equations of their own."""
