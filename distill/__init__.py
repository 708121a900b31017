"""The workstation half: teachers, data, losses and the trainer that distils a student from them."""
