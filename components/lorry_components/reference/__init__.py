"""The published figures of the papers; nothing else in the product knows them."""
