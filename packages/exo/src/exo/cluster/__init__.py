"""Many nodes: finding each other, trusting each other, and the files of the proxy in front of them."""
