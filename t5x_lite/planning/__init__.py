"""What a step will need before it is launched: memory, FLOPs, collectives and time, from the compiler and a roofline."""
