"""Behind one interface: build, load and launch kernels; and the float64 reference."""
