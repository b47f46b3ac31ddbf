"""What tests share: writers of files, small experiments, stand-ins, servers and browsers."""
