"""Networks, losses, augmentation and transport: what methods and attackers are made of. Nothing trains here."""
