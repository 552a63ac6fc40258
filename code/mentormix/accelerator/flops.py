"""Counts the floating-point operations of a graph."""


def behind(ops):
  """The tf.Operations that `ops` depend on, as a set; with `ops` themselves."""
  found, waiting = set(), list(ops)
  while waiting:
    op = waiting.pop()
    if op not in found:
      found.add(op)
      waiting += [x.op for x in op.inputs] + list(op.control_inputs)
  return found


def count(ops):
  """Floating-point operations of all convolutions and products behind `ops`.

  A multiplication with its addition counts as two. The static shapes in the
  graph decide.
  """
  return sum(map(_of, behind(ops)))


def _of(op):
  """Floating-point operations of one op."""
  if op.type == 'MatMul':
    inner = op.inputs[0].shape.as_list()[0 if op.get_attr('transpose_a') else 1]
    return 2 * op.outputs[0].shape.num_elements() * inner
  # The output of the convolution, or its gradient; and the kernel.
  if op.type == 'Conv2D':
    y, kernel = op.outputs[0], op.inputs[1]
  elif op.type == 'Conv2DBackpropInput':
    y, kernel = op.inputs[2], op.inputs[1]
  elif op.type == 'Conv2DBackpropFilter':
    y, kernel = op.inputs[2], op.outputs[0]
  else:
    return 0
  return (2 * y.shape.num_elements() * kernel.shape.num_elements()
          // kernel.shape.as_list()[3])
