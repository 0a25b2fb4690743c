"""Sessions of a simulated broker, and a program that reads what it says of them.

`market` has securities and prices, `script` what happens on which day, `broker` the books of the
broker and what it tells of them, `program` runs the jobs of the program at their times, and
`comparison` compares its tables with the broker's own wealth, each night.
"""
