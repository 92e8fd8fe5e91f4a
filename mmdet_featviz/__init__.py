from .checkpoints import allow_training_checkpoints

allow_training_checkpoints()
