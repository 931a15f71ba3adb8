"""What a participant of the venue runs on its own side."""
