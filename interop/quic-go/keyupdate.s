// An assembly file, though an empty one, lets a function be declared without a body.
