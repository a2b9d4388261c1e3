"""What advice depends on: the drivers, pools and frameworks of a client, one value each."""
