"""What the model server `rkllama` has beyond the node: the endpoints of earlier servers."""
