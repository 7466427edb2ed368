"""Where the work of a mask lies: closed-form ranges and block lists."""
