"""One module for each family of hardware. None of them imports a vendor's library before its probe is called."""
