"""The matching service: what runs as processes of their own around the engine, and talks to the world.

Each module holds one of them as a class with a `step()` that does what can be done now and returns; who starts them,
watches them and starts them again stands elsewhere.  The clock, the shared memory and the addresses are given to them.
"""
