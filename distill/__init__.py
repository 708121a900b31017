"""The workstation half: teachers, data, losses and the trainer that distills a student from them."""
