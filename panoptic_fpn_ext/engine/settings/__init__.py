"""What a config or a command line says, read and checked before anything is built."""
