"""The settings of training, each declared once.

A `Setting` says everything about one setting: name, default (and so its type),
meaning, range, and what may differ when a run resumes or in a cluster. The
flags, --help, the checks and config.json follow from it.
"""
from typing import Any, NamedTuple, Optional, Tuple

from mentormix.messages import UserError

_WEIGHTING = ('trained_mentornet_dir', 'loss_p_percentile', 'burn_in_epoch',
              'example_dropout_rates')

# Method -> the settings that it uses and some other method does not.
METHOD_SETTINGS = {
    'cross_entropy': (),
    'bootstrap_soft': ('bootstrap_beta',),
    'bootstrap_hard': ('bootstrap_beta',),
    's_model': ('noise_rate',),
    'gce': ('gce_q',),
    'elr': ('elr_lambda', 'elr_beta'),
    'co_teaching': ('forget_rate',),
    'mixup': ('mixup_alpha',),
    'mentornet': _WEIGHTING,
    'mentormix': _WEIGHTING + ('mixup_alpha', 'second_reweight', 'first_pass',
                               'first_pass_interval_epochs'),
}
METHODS = tuple(METHOD_SETTINGS)
PRECISIONS = ('float32', 'mixed')
FIRST_PASSES = ('training', 'inference', 'half')
AUGMENTATIONS = ('published', 'light')
LEARNING_RATE_SCHEDULES = ('exponential', 'cosine', 'linear', 'steps')
WEIGHTED = ('mentornet', 'mentormix')  # These need a MentorNet.
# Their v tells examples apart.
SELECTIVE = WEIGHTED + ('co_teaching',)
# The largest numbers, unless a setting says otherwise.
_LARGEST = {int: 2**31 - 1, float: 1e38}


class Setting(NamedTuple):
  """What there is to know about one setting."""
  name: str
  default: Any  # The setting has its type; None is a string or nothing.
  help: str
  at_least: Optional[float] = None
  at_most: Optional[float] = None
  above: Optional[float] = None
  choices: Tuple[str, ...] = ()
  may_change: bool = False  # A resumed run may have another value.
  per_task: bool = False  # The tasks of a cluster may have different values.
  # Words that the flag takes in place of a number, for which the command puts
  # one.
  words: Tuple[str, ...] = ()

  def check(self, value):
    """Raises UserError, which names the flag and its range, for a bad value."""
    high = self.at_most or _LARGEST.get(type(self.default))
    if value is None:  # Not given.
      return
    if self.choices:
      good, words = value in self.choices, f'one of {", ".join(self.choices)}'
    elif self.above is not None:
      good = self.above < value <= high
      words = f'above {self.above} and at most {high}'
    elif self.at_least is not None:
      good = self.at_least <= value <= high
      words = f'at least {self.at_least} and at most {high}'
    else:
      return
    if not good:
      raise UserError(f'--{self.name}={value} must be {words}')


MAX_BAD_RECORDS = Setting(
    'max_bad_records', 0,
    'Number of bad records of --data_dir to skip: not an example of the data '
    'set, a label out of range, or an image that cannot be decoded. If there '
    'are more, nothing starts. A file that is damaged or truncated is always '
    'an error, because what follows the damage cannot be read. Photographs '
    'are checked when they are prepared, not here.', at_least=0,
    may_change=True)

IMAGE_SIZE = Setting(
    'image_size', 0, 'For photographs: height and width in pixels; 0 takes '
    'those of the student.', at_least=0, at_most=1024)
IMAGE_RECIPE = Setting(
    'image_recipe', 'inception', 'For photographs, how they are cropped. '
    'inception: a random box of 5 to 100% of the image, brightness and '
    'saturation; tests: the central 87.5%. resize_crop: resized to a square, '
    '320 for a size of 299, and a random crop; tests: the centre. ncr: a '
    'random box; tests: the short side resized to 256 for a size of 224, and '
    'the centre. cifar: the whole image, small, with the published '
    'augmentation of CIFAR; tests: the whole image.',
    choices=('inception', 'resize_crop', 'ncr', 'cifar'))

TRAIN_SETTINGS = (
    # Of the published code.
    Setting('batch_size', 128, 'Examples per step.', at_least=1),
    Setting('master', '',
            'A TensorFlow server that is already running, such as '
            'grpc://host:port, to compute on. By default this process '
            'computes.', may_change=True),
    # A resumed run compares what it holds: see noise_facts.check_same.
    Setting('data_dir', '', 'Directory of the noisy training set.',
            may_change=True, per_task=True),
    Setting('train_log_dir', '',
            'Directory for checkpoints, summaries and config.json.',
            may_change=True),
    Setting('dataset_name', 'cifar100',
            'cifar10, cifar100, digits, mini_imagenet_red and other sets of '
            'photographs, or the name of your own data set.'),
    Setting('studentnet', 'resnet32',
            'The student, a name in mentormix/students/__init__.py: resnet32 '
            'is the published, wide network, resnet32_thin the classic thin '
            'one; fast, fast_thin and preact_resnet18 are for small images, '
            'too, and inception_resnet_v2, inception_v3, resnet_v1_50, '
            'resnet_v2_50, resnet18 and efficientnet_lite0 are for '
            'photographs.'),
    Setting('learning_rate', 0.1, 'Initial learning rate.', above=0),
    Setting('learning_rate_decay_factor', 0.9,
            'Factor by which each decay multiplies the learning rate.',
            above=0),
    Setting('num_epochs_per_decay', 3.0,
            'Epochs between two decays of the learning rate.', above=0),
    Setting('save_summaries_secs', 120,
            'Seconds between summaries; 0 writes none.', at_least=0,
            may_change=True),
    Setting('save_interval_secs', 1200, 'Seconds between checkpoints.',
            at_least=1, may_change=True),
    Setting('save_interval_steps', 0,
            'Steps between checkpoints, in place of --save_interval_secs, so '
            'that runs can be compared at the same steps. All checkpoints are '
            'then kept. 0 saves by time and keeps the newest 5.', at_least=0,
            may_change=True),
    # The epoch percentage depends on it, but a longer run is still this run.
    Setting('max_number_of_steps', 100000, 'Number of training steps.',
            at_least=1, may_change=True),
    Setting('ps_tasks', 0, 'Number of parameter servers that --master knows.',
            at_least=0, may_change=True),
    Setting('task', 0,
            'Index of this task in its job. Worker 0 is the chief.',
            at_least=0, may_change=True),
    Setting('device_id', '0',
            'GPUs to use, in the format of CUDA_VISIBLE_DEVICES.',
            may_change=True),
    Setting('trained_mentornet_dir', '',
            'The MentorNet: a directory with a frozen graph, such as those in '
            'mentornet_models/; a checkpoint prefix, or a directory with a '
            'checkpoint; the word threshold; or v_star: followed by the name '
            'or the Python file of a curriculum, which uses its formula '
            'directly.', per_task=True),
    Setting('example_dropout_rates', '0.0,100',
            'Share of each batch whose weights are set to zero, as '
            'rate,percent,rate,percent,... over 100 percent of the training. '
            'int(batch_size * (1 - rate)) random weights are kept (as '
            'published).'),
    Setting('burn_in_epoch', 0,
            'All weights are 1 while the training percentage is below '
            'burn_in_epoch - 1 (as published).', at_least=0, at_most=100),
    Setting('loss_p_percentile', 0.7,
            'The MentorNet compares each loss with a moving average of this '
            'percentile of the losses, from 0 to 1. auto: the share of right '
            'labels, from noise.json or code/estimate_noise.py.', at_least=0,
            at_most=1, words=('auto',)),
    Setting('mixup_alpha', 8.0,
            'Mixing coefficients come from Beta(alpha, alpha); 0 mixes '
            'nothing.', at_least=0),
    Setting('second_reweight', True,
            'Whether to weight the mixed examples, too. As published, this '
            'also turns weight decay off.'),
    # Additional settings.
    Setting('method', 'mentormix',
            'cross_entropy: plain training. mixup: uniform partners, no '
            'weights. mentornet: weights, no mixing. mentormix: weights and '
            'mixing. bootstrap_soft, bootstrap_hard: targets mixed with the '
            'prediction. s_model: a noise layer. gce: generalised '
            'cross-entropy. elr: early-learning regularisation. co_teaching: '
            'the small-loss selection of Co-teaching, with one network only.',
            choices=METHODS),
    Setting('seed', 0,
            'Seed of initial weights, order, augmentation and mixing.',
            at_least=0, at_most=2**32 - 1),
    Setting('num_readers', 4,
            'Threads that read the files of photographs, or of a data set too '
            'large for memory (more than 2 GiB decoded).',
            at_least=1, may_change=True),
    Setting('num_preprocessing_threads', 1,
            'Threads that augment images and, of photographs and such a large '
            'data set, decode them. With 1, and there with 1 reader, the seed '
            'fixes the order of the images.', at_least=1, may_change=True),
    Setting('loss_csv_file', '',
            'CSV file for the losses of the examples, from which '
            'train_mentornet.py learns a data-driven MentorNet. It gets up to '
            'a million rows, some with each checkpoint; in a cluster, those of '
            'the chief. Needs clean labels.', per_task=True),
    Setting('precision', 'float32',
            'float32 or mixed. With mixed, the student computes in bfloat16 on '
            'TensorFlow 2.x (GPUs from Ampere, CPUs with AMX or AVX512-BF16), '
            'in float16 with loss scaling on 1.15 (Volta, Turing). Weights, '
            'losses, weighting and averages stay float32.', choices=PRECISIONS),
    Setting('xla', False, 'Whether XLA compiles the step.', may_change=True),
    MAX_BAD_RECORDS,
    IMAGE_SIZE, IMAGE_RECIPE,
    Setting('warmup_steps', 0,
            'Steps over which the learning rate grows to its initial value.',
            at_least=0),
    Setting('learning_rate_schedule', 'exponential',
            'exponential: a factor every --num_epochs_per_decay epochs '
            '(published). cosine: half a cosine, to 0 at '
            '--max_number_of_steps. linear: a straight line to 0 there. steps: '
            'the factor at each of --decay_epochs.',
            choices=LEARNING_RATE_SCHEDULES),
    Setting('nesterov', False,
            'Whether the optimizer is momentum SGD in the form of Nesterov.'),
    Setting('augmentation', 'published',
            'Of small images. published: crops after padding with black, '
            'random flips, brightness, saturation, hue and contrast. light: '
            'crops after padding by reflection, and flips that alternate from '
            'epoch to epoch.', choices=AUGMENTATIONS),
    Setting('decay_epochs', '',
            'Epochs at which --learning_rate_schedule=steps multiplies the '
            'learning rate by --learning_rate_decay_factor, as in 40,100.'),
    Setting('weight_decay', -1.0,
            'Coefficient of half the sum of squares of the weights that the '
            'student decays. -1 stands for that of the student (0.0002 for '
            'resnet32), and for none with mentormix and the second weighting, '
            'as published. Any other number applies there, too.',
            at_least=-1),
    Setting('dropout', -1.0,
            'Share of the numbers that are dropped before the last layer of '
            'the student. -1 stands for its own; 0 drops nothing.',
            at_least=-1, at_most=0.99),
    Setting('first_pass', 'training',
            'How mentormix passes the images through the student to weight '
            'them. training: as they are, batch norm with the statistics of '
            'the batch (published). inference: with the moving statistics, '
            'without dropout. half: at half the height and width, for a '
            'quarter of the arithmetic.', choices=FIRST_PASSES),
    Setting('first_pass_interval_epochs', 1,
            'Epochs from one first pass over the images to the next. In those '
            'between, each example has its last loss. 1 takes it in every step '
            '(published).',
            at_least=1),
    # Of single methods.
    Setting('bootstrap_beta', -1.0,
            'Share of the given label in the targets of bootstrap_soft and '
            'bootstrap_hard; the rest is the prediction. -1 stands for 0.95 '
            'and 0.8.', at_least=-1, at_most=1),
    Setting('noise_rate', 0.2,
            'Share of wrong labels with which the noise layer of s_model '
            'starts.', at_least=0, at_most=0.99),
    Setting('gce_q', 0.7,
            'Exponent of gce: near 0 it is cross-entropy, at 1 the mean '
            'absolute error.', above=0, at_most=1),
    Setting('elr_lambda', 3.0, 'Weight of the regulariser of elr.',
            at_least=0),
    Setting('elr_beta', 0.7,
            'Decay of the running means of the predictions of elr.', at_least=0,
            at_most=0.9999),
    Setting('forget_rate', 0.2,
            'Share of each batch, that of the largest losses, that co_teaching '
            'leaves out from epoch 10 on; it grows to that from 0.',
            at_least=0, at_most=0.99),
    Setting('microbatches', 1,
            'Parts of the batch that the student sees one after another, to '
            'need the memory of one part. Their gradients are added up. '
            'Weights, partners and mixing stay those of the whole batch. Batch '
            'norm uses the statistics of each part, in both passes; its moving '
            'statistics move once a step, by the mean over the parts. A second '
            'weighting, or mentornet, takes one more forward pass.',
            at_least=1),
    # These three matter only when a run starts.
    Setting('checkpoint_path', '',
            'Checkpoint whose weights and moving statistics a new run starts '
            'with: a prefix, a single file (V1), or a directory, which stands '
            'for its newest. A run that resumes ignores it.', may_change=True),
    Setting('checkpoint_exclude_scopes', '',
            'Variables not to load, by the beginnings of their names, as in '
            'ResNet8/logit,ResNet8/unit_3. By default those that the student '
            'names as its head, if any; none loads all.', may_change=True),
    Setting('ignore_missing_vars', False,
            'Whether variables that --checkpoint_path lacks keep their initial '
            'values.', may_change=True),
    Setting('trainable_scopes', '',
            'The weights to train, by the beginnings of their names; by '
            'default all. The others stay as they are, without weight decay; '
            'moving statistics still move.'),
    Setting('job_name', '',
            'Job of this task in a cluster: worker, ps (parameter server), or '
            'evaluator, which does the work of cifar_eval.py on the directory '
            'val beside --data_dir. The environment variable TF_CONFIG can '
            'describe a cluster in place of the flags --job_name, --task, '
            '--ps_hosts and --worker_hosts.', may_change=True),
    Setting('ps_hosts', '',
            'Addresses of the parameter servers, as host:port,host:port.',
            may_change=True),
    Setting('worker_hosts', '',
            'Addresses of the workers, as host:port,host:port. The first is '
            'the chief.', may_change=True),
    Setting('listen_on_all_interfaces', False,
            'Whether this task may open its port to other machines. The server '
            'of TensorFlow listens on every interface, has no password and '
            'executes what it is sent, so keep others away from the port. Not '
            'needed where loopback is the only interface.', may_change=True),
    Setting('cluster_timeout', 600,
            'Seconds to wait for a task that does not answer, or for a step; 0 '
            'waits for ever.', at_least=0, may_change=True),
    Setting('sync_replicas', False,
            'Whether the workers take each step together, with the mean of '
            'their gradients; --max_number_of_steps then counts steps of '
            'workers x batch_size examples. Otherwise every worker takes steps '
            'of its own, and all of them count.'),
)
