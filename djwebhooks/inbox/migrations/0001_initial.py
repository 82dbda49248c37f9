"""Make the tables."""


import djwebhooks.database
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='FeedPosition',
            fields=[
                ('source', djwebhooks.database.ExactCharField(max_length=64, primary_key=True, serialize=False)),
                ('feed_url', models.TextField(help_text='Whose numbers these are.')),
                ('read_to', models.BigIntegerField()),
            ],
            options={
                'db_table': 'djw_inbox_feed',
            },
        ),
        migrations.CreateModel(
            name='Message',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('source', djwebhooks.database.ExactCharField(max_length=64)),
                ('message_id', djwebhooks.database.ExactCharField(help_text="The sender's; the same each time that it is sent.", max_length=255, verbose_name='message id')),
                ('event', djwebhooks.database.ExactCharField(blank=True, max_length=255)),
                ('status', djwebhooks.database.ExactCharField(choices=[('new', 'New'), ('processed', 'Processed'), ('failed', 'Failed'), ('ignored', 'Ignored'), ('rejected', 'Rejected')], default='new', max_length=9)),
                ('headers', models.JSONField(default=dict)),
                ('body', models.BinaryField(help_text='The exact bytes.')),
                ('remote_address', models.GenericIPAddressField(blank=True, null=True)),
                ('sequence', models.BigIntegerField(blank=True, help_text="The sender's number for it, if it counts.", null=True)),
                ('received_at', models.DateTimeField(db_default=djwebhooks.database.DatabaseNow())),
                ('due_at', models.DateTimeField(blank=True, db_default=djwebhooks.database.DatabaseNow(), help_text='When the handlers run next.', null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('attempt_count', models.PositiveIntegerField(db_default=0, default=0, verbose_name='attempts')),
                ('error', models.TextField(blank=True, default='', verbose_name='last error')),
                ('erased_at', models.DateTimeField(blank=True, help_text='Since when it says nothing any more.', null=True)),
            ],
            options={
                'db_table': 'djw_inbox_message',
                'ordering': ['-id'],
                'permissions': [('replay_message', 'Can have the handlers of messages run again'), ('fetch_message', "Can have senders' feeds asked for what is missing")],
                'indexes': [
                    djwebhooks.database.PartialIndex(fields=['due_at', 'id'], name='djw_inbox_due', otherwise=['due_at'], where=models.Q(('due_at__isnull', False))),
                    djwebhooks.database.PartialIndex(fields=['source', 'sequence'], name='djw_inbox_sequence', otherwise=['source', 'sequence'], where=models.Q(('sequence__isnull', False))),
                ],
                'constraints': [
                    models.UniqueConstraint(fields=('source', 'message_id'), name='djw_inbox_once'),
                    models.CheckConstraint(condition=models.Q(models.Q(('due_at__isnull', False), ('status', 'new')), models.Q(models.Q(('status', 'new'), _negated=True), ('due_at__isnull', True)), _connector='OR'), name='djw_inbox_due_while_new'),
                ],
            },
        ),
    ]
