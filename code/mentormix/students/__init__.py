"""The student networks, by name.

    student = students.get('resnet32')
    logits = student(images, num_classes, is_training)   # [B, K]

Every student takes images in [-1, 1], which a network that was trained on other
numbers scales itself. To add one, add a row to `STUDENTS`: a `Student` with a
network of that signature and the keywords `update_statistics`, `dtype` and
`dropout_keep`. B is the batch size, K the number of classes.
"""
import functools
from typing import Callable, NamedTuple, Optional, Tuple

from mentormix.messages import UserError
from mentormix.runtime import tf
from mentormix.students import blocks
from mentormix.students import efficientnet_lite0
from mentormix.students import fast
from mentormix.students import inception_resnet_v2
from mentormix.students import resnet
from mentormix.students import resnet18
from mentormix.students import slim_nets

AUXILIARY_LOGITS = blocks.AUXILIARY_LOGITS
# As `update_statistics`: the moving statistics become those of the batch.
REPLACED = blocks.REPLACED


class Student(NamedTuple):
  """A row of the table; call it to add the network to the graph."""
  # (images [B, H, W, 3], num_classes, is_training, update_statistics=True,
  # dtype=tf.float32, dropout_keep=...) -> logits [B, K].
  network: Callable
  weight_decay: float = resnet.WEIGHT_DECAY  # Of half the sum of squares.
  # Last parts of the names of the variables that it is of.
  decayed: Tuple[str, ...] = ('weights',)
  image_size: int = 32  # Pixels, by default.
  smallest_size: int = 4  # Pixels that it can be trained on.
  size_multiple: int = 1  # It takes multiples of this.
  # Probability that dropout keeps a number before the last layer, by default;
  # None if there is no dropout.
  dropout_keep: Optional[float] = None
  # Scopes that are not loaded from a pretrained checkpoint by default: those
  # whose shapes depend on the number of classes.
  excluded_scopes: Tuple[str, ...] = ()
  auxiliary_weight: float = 0.0  # Of the loss of the AUXILIARY_LOGITS.
  # Training images [N, H, W, 3] in [-1, 1] -> name of a variable -> the value
  # that a new run starts with; None if nothing follows from the images.
  prepared: Optional[Callable] = None

  def __call__(self, images, num_classes, is_training, **keywords):
    """Adds the network to the graph; returns logits [B, K] float32."""
    if self.dropout_keep is not None:
      keywords.setdefault('dropout_keep', self.dropout_keep)
    return self.network(images, num_classes, is_training, **keywords)

  @property
  def keywords(self):
    """What distinguishes the network from others of its family, a dict."""
    return getattr(self.network, 'keywords', {})

  def takes(self, size):
    """Whether images of `size` x `size` pixels fit."""
    return size >= self.smallest_size and size % self.size_multiple == 0

  def decay_loss(self, coefficient=None):
    """Weight decay of the variables that train, a float32 scalar.

    Args:
      coefficient: in place of `weight_decay`.
    """
    if coefficient is None:
      coefficient = self.weight_decay
    decayed = [v for v in tf.trainable_variables()
               if v.op.name.rpartition('/')[2] in self.decayed]
    if not decayed:  # --trainable_scopes may leave none.
      return tf.constant(0.0)
    return coefficient * tf.add_n([tf.nn.l2_loss(w) for w in decayed])


def _published(depth, *widths):
  """A network of the published family, for small images."""
  return Student(functools.partial(resnet.resnet, depth=depth, widths=widths),
                 decayed=('DW',), size_multiple=4)


def _fast(*widths):
  """A network for small images and few steps."""
  return Student(functools.partial(fast.fast, widths=widths),
                 weight_decay=fast.WEIGHT_DECAY, smallest_size=16,
                 prepared=fast.whitening)


_ALL = ('weights', 'biases', 'beta', 'gamma')

# The published "ResNet-32" is wide; the thin ones are the classic widths.
STUDENTS = {
    'resnet32': _published(32, 64, 128, 256, 512),
    'resnet32_thin': _published(32, 16, 16, 32, 64),
    'resnet14_thin': _published(14, 16, 16, 32, 64),
    'resnet8_thin': _published(8, 16, 16, 32, 64),
    'inception_resnet_v2': Student(
        inception_resnet_v2.inception_resnet_v2,
        weight_decay=inception_resnet_v2.WEIGHT_DECAY,
        decayed=('weights', 'biases'), image_size=299,
        smallest_size=inception_resnet_v2.SMALLEST_SIZE,
        dropout_keep=inception_resnet_v2.DROPOUT_KEEP,
        excluded_scopes=('InceptionResnetV2/Logits',
                         'InceptionResnetV2/AuxLogits'),
        auxiliary_weight=inception_resnet_v2.AUXILIARY_WEIGHT),
    # Weight decay is that of tf-slim's own arg_scopes.
    'inception_v3': Student(
        slim_nets.inception_v3, weight_decay=4e-5, image_size=299,
        smallest_size=107, dropout_keep=0.8,
        excluded_scopes=('InceptionV3/Logits', 'InceptionV3/AuxLogits'),
        auxiliary_weight=0.4),
    'resnet_v1_50': Student(
        slim_nets.resnet_v1_50, weight_decay=1e-4, image_size=224,
        smallest_size=32, excluded_scopes=('resnet_v1_50/logits',)),
    'resnet_v2_50': Student(
        slim_nets.resnet_v2_50, weight_decay=1e-4, image_size=224,
        smallest_size=32, excluded_scopes=('resnet_v2_50/logits',)),
    'efficientnet_lite0': Student(
        efficientnet_lite0.efficientnet_lite0,
        weight_decay=efficientnet_lite0.WEIGHT_DECAY,
        decayed=('weights', 'depthwise_weights', 'biases'), image_size=224,
        smallest_size=32, dropout_keep=efficientnet_lite0.DROPOUT_KEEP,
        excluded_scopes=('EfficientnetLite0/Logits',)),
    'fast': _fast(64, 256, 256),  # The widths of airbench94.
    'fast_thin': _fast(32, 128, 256),
    'resnet18': Student(
        resnet18.resnet18, weight_decay=resnet18.WEIGHT_DECAY,
        decayed=_ALL, image_size=224, smallest_size=32,
        excluded_scopes=('ResNet18/Logits',)),
    'preact_resnet18': Student(
        resnet18.preact_resnet18, weight_decay=resnet18.WEIGHT_DECAY,
        decayed=_ALL, smallest_size=8,
        excluded_scopes=('PreActResNet18/Logits',)),
}


def get(name):
  """Returns the `Student` called `name`; UserError names the known ones."""
  if name not in STUDENTS:
    raise UserError(f'--studentnet={name} is unknown; known are '
                    f'{", ".join(sorted(STUDENTS))}')
  return STUDENTS[name]


def check_size(name, size, first_pass='training'):
  """Raises UserError unless the student takes images of this size.

  Args:
    name: of the student.
    size: height and width of the images, pixels.
    first_pass: one of `settings.FIRST_PASSES`; `half` halves the images.
  """
  student = get(name)
  if not student.takes(size):
    multiple = (f'a multiple of {student.size_multiple}, '
                if student.size_multiple > 1 else '')
    raise UserError(f'--studentnet={name} does not take images of {size}x{size}'
                    f' pixels; their size must be {multiple}at least '
                    f'{student.smallest_size}')
  if first_pass == 'half' and not student.takes(size // 2):
    raise UserError(f'--first_pass=half: --studentnet={name} does not take '
                    f'images of {size // 2}x{size // 2} pixels; choose another '
                    '--first_pass or a larger --image_size')
