"""Counts the floating-point operations of a graph."""


def count(ops):
  """Floating-point operations of all convolutions and products behind `ops`.

  A multiplication with its addition counts as two. The static shapes in the
  graph decide.

  Args:
    ops: tf.Operations; whatever they depend on counts, too.

  Returns:
    An int.
  """
  total, seen, waiting = 0, set(), list(ops)
  while waiting:
    op = waiting.pop()
    if op not in seen:
      seen.add(op)
      total += _of(op)
      waiting += [x.op for x in op.inputs] + list(op.control_inputs)
  return total


def _of(op):
  """Floating-point operations of one op."""
  if op.type == 'MatMul':
    inner = op.inputs[0].shape.as_list()[0 if op.get_attr('transpose_a') else 1]
    return 2 * op.outputs[0].shape.num_elements() * inner
  # The output of the convolution, or its gradient; and the kernel.
  outputs = {'Conv2D': lambda: (op.outputs[0], op.inputs[1]),
             'Conv2DBackpropInput': lambda: (op.inputs[2], op.inputs[1]),
             'Conv2DBackpropFilter': lambda: (op.inputs[2], op.outputs[0])}
  if op.type not in outputs:
    return 0
  y, kernel = outputs[op.type]()
  channels = kernel.shape.as_list()[3]
  return (2 * y.shape.num_elements() * kernel.shape.num_elements()
          // channels)
