"""Files -> queue -> batch.

Training: a set that fits into memory is decoded once, and a queue of shuffled
indices decides which records come next. A larger set is read again in every
epoch through tf-slim's provider, by several readers into a shuffling queue.
Evaluation: one reader, in order, every image exactly once. B is the batch size.
"""
import typing

from mentormix import runtime
from mentormix import sampling
from mentormix.data import augmentation
from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.messages import UserError
from mentormix.runtime import slim, tf

# Decoded images of up to this many bytes are kept in memory, twice: as they
# were read, for a session that restarts, and in a variable of the graph.
MOST_IN_MEMORY = 2 ** 31
_BATCHES_AHEAD = 4  # In the queue before the step.
# Of random numbers; the augmentation uses those from 0 on.
_FLIP_STREAM, _ORDER_STREAM = 30, 31

# For a larger set the shuffling queue holds an epoch divided by the first
# number, at most as many records (of about 3 kB) as the second, at least B.
_SHUFFLED_SHARE = 4
_MAX_SHUFFLED = 8192


class Batch(typing.NamedTuple):
  """A batch."""
  images: tf.Tensor  # float32 [B, H, W, 3] in [-1, 1].
  labels: tf.Tensor  # int64 [B], as given.
  clean_labels: tf.Tensor  # int64 [B], datasets.UNKNOWN_LABEL where not known.
  source_ids: tf.Tensor  # string [B], empty where not known.
  # int32 [B], positions in the order of the records; () unless asked for.
  indices: typing.Any = ()


def train_batch(dataset, shards, num_examples, batch_size, seed=0, start=0,
                num_readers=4, num_threads=1, worker=0, num_workers=1,
                device='', in_memory=True, with_indices=False, light=False):
  """An endless, shuffled, augmented stream of batches.

  From memory, every image comes exactly once per epoch, in a new random order
  for each epoch (published: nearly the order on disk). With one thread, the
  seed and n determine order and augmentation of the n-th batch; from files,
  they determine only the augmentation.

  Several workers share the order of each epoch: an image goes to one of them,
  and probably to another one in the next epoch, so if a worker dies, no image
  is lost for good. From files, each worker reads all files in its own order.

  Args:
    dataset: a `datasets.Dataset`.
    shards: the `datasets.Shard`s of the training split.
    num_examples: how many records they hold, without the skipped ones.
    batch_size: B.
    seed: an int, at least 0.
    start: int64 scalar or int, read when a session starts: how many batches
      have been used before. The stream resumes there.
    num_readers: threads that read the files of a set too large for memory.
    num_threads: threads that augment and, for such a set, decode.
    worker: index of this worker.
    num_workers: W; each gets N // W of the N examples of an epoch, and the
      rest is left out of that epoch.
    device: of this worker.
    in_memory: whether a set may be kept in memory; the session then must
      belong to this process.
    with_indices: whether the batches have `indices`, for which the set must
      fit into memory.
    light: whether the augmentation is the light one. Its flips alternate by
      epoch; from files, and with several threads nearly so, they are random.

  Returns:
    A `Batch`.

  Raises:
    UserError: an image cannot be decoded, or there are fewer examples than
      workers.
  """
  if num_examples < num_workers:
    raise UserError(f'{num_examples} examples are too few for {num_workers} '
                    'workers')
  with tf.device(device + '/cpu:0'), tf.name_scope('input'), \
      runtime.without_xla():
    if in_memory and fits_in_memory(dataset, num_examples):
      batch = _from_memory(dataset, shards, num_examples, batch_size, seed,
                           start, worker, num_workers)
    else:
      batch = _from_files(dataset, shards, num_examples, batch_size,
                          num_readers, num_threads)
    count = _count(start)
    sampler = sampling.Sampler(sampling.worker_seed(seed, worker), count)
    if light:
      images = _augmented_lightly(batch, sampler, seed, count, num_examples,
                                  num_workers)
    else:
      images = augmentation.augment_in_parts(
          batch.images, augmentation.draw(batch_size, sampler))
    batch = batch._replace(images=images)
    items = batch if with_indices else batch[:-1]
    queue = tf.FIFOQueue(_BATCHES_AHEAD, [x.dtype for x in items],
                         [x.shape for x in items])
    tf.train.add_queue_runner(tf.train.QueueRunner(
        queue, [queue.enqueue(items)] * num_threads))
    return Batch(*queue.dequeue())


def _augmented_lightly(batch, sampler, seed, count, num_examples, num_workers):
  """The images of `batch`, the `count`-th of this worker, as float32."""
  batch_size = batch.images.shape[0].value
  if batch.indices == ():  # From files, nothing says which image it is.
    flip = sampler.integers([batch_size], 0, 1) < 1
  else:
    used = count * batch_size + tf.range(batch_size, dtype=tf.int64)
    flip = augmentation.alternating_flips(
        num_examples, sampling.Sampler(seed, 0, _FLIP_STREAM), batch.indices,
        used // (num_examples // num_workers))
  return augmentation.augment_lightly(
      batch.images, augmentation.draw_light(batch_size, sampler, flip))


def fits_in_memory(dataset, num_examples):
  """Whether training keeps so many images of a `datasets.Dataset` decoded."""
  return (not dataset.photographs and
          num_examples * 3 * dataset.image_size ** 2 <= MOST_IN_MEMORY)


def _count(start):
  """start, start + 1, ...: each evaluation gives the next one."""
  return _local_variable('batch', tf.cast(start, tf.int64)).assign_add(1) - 1


def _local_variable(name, value):
  """A variable that is set when a session starts, not saved in checkpoints."""
  return tf.Variable(value, trainable=False, name=name,
                     collections=[tf.GraphKeys.LOCAL_VARIABLES])


def _from_memory(dataset, shards, num_examples, batch_size, seed, start, worker,
                 num_workers):
  """A `Batch` of uint8 images, taken by index from arrays decoded once."""
  arrays = decoding.decode(dataset, 'train', shards, num_examples)
  indices = _shuffled(num_examples, seed, start * batch_size, worker,
                      num_workers).dequeue_many(batch_size)  # [B]

  def take(item):
    array = arrays[item]
    # Not a constant: the graph is written to disk with all its constants.
    value = tf.py_func(lambda: array, [], tf.as_dtype(array.dtype))
    value.set_shape(array.shape)
    return tf.gather(_local_variable(item, value), indices)
  return Batch(*map(take, datasets.ITEMS), indices=indices)


def _shuffled(num_examples, seed, used, worker, num_workers):
  """A queue of a worker's share of all indices, in random order, by epoch.

  Seed and epoch determine the order; `used` indices of the share are skipped.
  """
  share = num_examples // num_workers
  queue = tf.FIFOQueue(share, [tf.int32], [[]])
  position = _local_variable('position', tf.cast(used, tf.int64))
  begin = tf.identity(position)
  epoch = begin // share
  order = tf.argsort(sampling.Sampler(seed, epoch, _ORDER_STREAM).uniform(
      [num_examples]))
  if num_workers > 1:
    order = order[worker * share:(worker + 1) * share]
  # One thread is enough: it needs `position` only after the assignment.
  with tf.control_dependencies(
      [queue.enqueue_many([order[begin % share:]])]):
    turn = position.assign((epoch + 1) * share)
  tf.train.add_queue_runner(tf.train.QueueRunner(queue, [turn]))
  return queue


def _from_files(dataset, shards, num_examples, batch_size, num_readers,
                num_threads):
  """A `Batch` of uint8 images, read and decoded as they are needed."""
  kept_back = max(batch_size, min(num_examples // _SHUFFLED_SHARE,
                                  _MAX_SHUFFLED))
  provider = slim.dataset_data_provider.DatasetDataProvider(
      decoding.slim_dataset(dataset, 'train', shards, num_examples),
      num_readers=min(num_readers, len(shards)), shuffle=True,
      # Capacity for one more only, so each draw is from the same number of
      # records, whether the readers or the step are faster.
      common_queue_capacity=kept_back + 1, common_queue_min=kept_back)
  return Batch(*tf.train.batch(
      provider.get(list(datasets.ITEMS)), batch_size, num_threads=num_threads,
      capacity=4 * batch_size))


def eval_batch(dataset, split, shards, num_examples, batch_size):
  """One pass in file order; then tf.errors.OutOfRangeError.

  The last batch holds what is left. A local variable counts the pass, so run
  tf.local_variables_initializer before it.

  Args:
    dataset: a `datasets.Dataset`.
    split: 'train' or 'test'.
    shards: the `datasets.Shard`s of the split.
    num_examples: how many records they hold, without the skipped ones.
    batch_size: B.

  Returns:
    A `Batch` with a first dimension of at most B.
  """
  with tf.device('/cpu:0'), tf.name_scope('input'):
    provider = slim.dataset_data_provider.DatasetDataProvider(
        decoding.slim_dataset(dataset, split, shards, num_examples),
        num_readers=1, shuffle=False, num_epochs=1)
    image, *rest = provider.get(list(datasets.ITEMS))
    image = (tf.cast(image, tf.float32) - 127.5) / 127.5  # As published.
    return Batch(*tf.train.batch(
        [image] + rest, batch_size, num_threads=1,
        capacity=4 * batch_size, allow_smaller_final_batch=True))
