"""What `mekt` can be told to do, by noun: each command's options beside what runs it."""
