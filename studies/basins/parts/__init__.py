"""What the study consists of. Each part has units, arrays that join them, and a section.

- `units(config)`: name of a unit → what computes its arrays; they are kept one by one;
- `joined(units, config)`: their arrays in one dataset;
- `section(arrays, config)`: what the report says about them.
"""
