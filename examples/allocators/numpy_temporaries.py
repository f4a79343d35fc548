"""NumPy temporaries: `python numpy_temporaries.py BYTES` evaluates a*b + c*b - a on such arrays.

With `out` behind it, in two arrays made once and reused by hand: what no allocator can be expected to beat by much.
"""

import sys

import numpy

BYTES_TOUCHED = 12 << 30

array_bytes = int(sys.argv[1])
count = array_bytes // 8
a, b, c = (numpy.full(count, value) for value in (1.5, 2.5, 3.5))
left, right = numpy.empty(count), numpy.empty(count)
for _ in range(max(3, BYTES_TOUCHED // (array_bytes * 4))):
    if sys.argv[2:] == ["out"]:
        numpy.multiply(a, b, out=left)
        numpy.multiply(c, b, out=right)
        numpy.add(left, right, out=left)
        result = numpy.subtract(left, a, out=left)
    else:
        result = a * b + c * b - a
print(float(result[0]))
