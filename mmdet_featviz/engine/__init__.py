"""What joins drawing to a runner of mmengine."""
