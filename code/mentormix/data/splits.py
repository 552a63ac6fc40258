"""A split of any data set, found, checked and read in batches.

Small images are checked and decoded once. Photographs, which may be millions,
were checked when they were prepared: here their records are only read when they
are needed. B is the batch size.
"""
import os
import typing

from mentormix import runtime
from mentormix.data import datasets
from mentormix.data import decoding
from mentormix.data import input_pipeline
from mentormix.data import noise_facts
from mentormix.data import photo_input
from mentormix.data import record_checks
from mentormix.messages import UserError
from mentormix.runtime import tf


class Split(typing.NamedTuple):
  """What there is to read."""
  dataset: datasets.Dataset
  name: str  # train or test.
  shards: typing.List[datasets.Shard]
  count: int  # Records, without the skipped ones.
  recipe: str  # For photographs, a key of `photo_input.RECIPES`.

  def train_batch(self, batch_size, **options):
    """An endless stream of batches; options as of the pipeline."""
    if not self.dataset.photographs:
      return input_pipeline.train_batch(self.dataset, self.shards, self.count,
                                        batch_size, **options)
    return photo_input.train_batch(
        self.shards, self.count, batch_size, self.dataset.image_size,
        self.recipe, **{name: options[name] for name in (
            'num_readers', 'num_threads', 'device') if name in options})

  def eval_batch(self, batch_size):
    """One pass in file order, a batch; then tf.errors.OutOfRangeError."""
    if not self.dataset.photographs:
      return input_pipeline.eval_batch(self.dataset, self.name, self.shards,
                                       self.count, batch_size)
    return photo_input.eval_batch(
        self.dataset, self.name, self.shards, self.count, batch_size,
        self.dataset.image_size, self.recipe)

  def first_images(self, count):
    """Up to `count` images in file order, float32 [N, H, W, 3] in [-1, 1]."""
    with tf.Graph().as_default(), tf.Session(
        config=runtime.session_config()) as session:
      images = self.eval_batch(min(count, self.count)).images
      session.run(tf.local_variables_initializer())
      coordinator = tf.train.Coordinator()
      threads = tf.train.start_queue_runners(session, coordinator)
      try:
        return session.run(images)
      finally:
        coordinator.request_stop()
        coordinator.join(threads)

  def check_images(self):
    """Raises UserError for the first image that cannot be decoded, if any."""
    if not self.dataset.photographs:
      decoding.check_images(self.dataset, self.name, self.shards)


def dataset(name, data_dir, student, image_size=0):
  """The `datasets.Dataset` as a student sees it.

  Args:
    name: of the data set.
    data_dir: where its files are.
    student: a `students.Student`, which says the size of photographs.
    image_size: that size, if it is not 0.

  Raises:
    UserError: there is no such data set, or its images have a size already.
  """
  found = datasets.get(name, data_dir)
  if found.photographs:
    return found._replace(image_size=image_size or student.image_size)
  if image_size not in (0, found.image_size):
    raise UserError(f'--image_size={image_size} is for photographs; the images '
                    f'in {data_dir} have {found.image_size} pixels')
  return found


def find(found, name, data_dir, recipe, max_bad_records=0):
  """Finds and checks the files of a split.

  Args:
    found: a `datasets.Dataset`, as of `dataset`.
    name: train or test.
    data_dir: where its files are.
    recipe: for photographs, a key of `photo_input.RECIPES`.
    max_bad_records: as for `record_checks.check_files`.

  Returns:
    A `Split`.

  Raises:
    UserError: files are missing or damaged; the line names them.
  """
  paths = datasets.find_files(found, name, data_dir)
  if not found.photographs:
    return Split(found, name, *record_checks.check_files(
        found, name, paths, max_bad_records), recipe)
  facts = noise_facts.read_facts(data_dir)
  empty = [path for path in paths if not os.path.getsize(path)]
  if empty:
    raise UserError(f'{empty[0]} is an empty file; prepare the data again')
  return Split(found, name, [datasets.Shard(path) for path in paths],
               facts['num_examples'], recipe)
