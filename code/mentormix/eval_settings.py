"""The settings of evaluation, each declared once, as in `settings`."""
from mentormix import settings
from mentormix.settings import Setting

STATISTICS = ('moving', 'recomputed')  # Of batch norm.

EVAL_SETTINGS = (
    # Of the published code. None stands for the value of the training run.
    Setting('batch_size', 25, 'Images per batch.', at_least=1),
    Setting('master', '', 'TensorFlow master to use.'),
    Setting('data_dir', '', 'Directory of the split to evaluate on.'),
    Setting('dataset_name', None,
            'By default the data set of the run; cifar100 if the run has no '
            'config.json.'),
    Setting('studentnet', None,
            'By default the student of the run; resnet32 if the run has no '
            'config.json.'),
    Setting('split_name', 'test', 'Split of --data_dir: test or train.',
            choices=('test', 'train')),
    Setting('checkpoint_dir', '', 'The --train_log_dir of the training run.'),
    Setting('eval_dir', '', 'Directory for summaries and results.csv.'),
    Setting('eval_interval_secs', 600,
            'Seconds between two looks for new checkpoints.', at_least=1),
    Setting('output_csv_file', '', 'By default results.csv in --eval_dir.'),
    Setting('device_id', '0',
            'GPUs to use, in the format of CUDA_VISIBLE_DEVICES.'),
    # Additional settings.
    Setting('once', False, 'Evaluate the checkpoints that exist, then end.'),
    Setting('timeout', 0,
            'Seconds without a new checkpoint after which evaluation gives up; '
            '0 waits for ever.', at_least=0),
    Setting('statistics', 'moving',
            'Of batch norm. moving: of the weights before averaging '
            '(published); recomputed: in a second pass, of up to 10,000 '
            'training images, for the column top1_recomputed of results.csv.',
            choices=STATISTICS),
    Setting('test_time_flip', False,
            'Also evaluate the mean logits of each image and its mirror image, '
            'in the last pass, for the column top1_flipped of results.csv.'),
    Setting('train_data_dir', '',
            'The training set for --statistics=recomputed; by default that of '
            'the run.'),
    settings.MAX_BAD_RECORDS,
    settings.IMAGE_SIZE._replace(
        help='For photographs: height and width; 0 takes those of the run.'),
    settings.IMAGE_RECIPE._replace(
        default=None, help='For photographs: by default as in the run.'),
)
