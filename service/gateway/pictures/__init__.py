"""Pictures that clients send: received, checked, and brought to the model's size."""
