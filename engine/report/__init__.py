"""A comparison as one HTML file that opens offline; its plots are drawn without a library."""
