"""Make the tables.

It is not called initial: dj-webhooks has the same app label, and what a project once made for its tables would count as this.
"""

import django.db.models.deletion
import djwebhooks.database
import djwebhooks.models.keyring
import djwebhooks.models.sealed
import djwebhooks.models.endpoints
import djwebhooks.uid
from django.db import migrations, models

from djwebhooks.owners import owner_migration, owner_model


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        owner_migration(),
    ]

    operations = [
        migrations.CreateModel(
            name='Dispatcher',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
            ],
            options={
                'db_table': 'djw_dispatcher',
            },
        ),
        migrations.CreateModel(
            name='WebhookTarget',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=djwebhooks.uid.uuid7, editable=False, unique=True)),
                ('identifier', djwebhooks.database.ExactCharField(blank=True, help_text="Only events with this identifier are sent; empty is all of the owner's.", max_length=255)),
                ('target_url', models.TextField(help_text='Where events are sent by POST.', verbose_name='URL')),
                ('digest', djwebhooks.models.endpoints.DigestField(editable=False, max_length=64, unique=True)),
                ('description', models.CharField(blank=True, max_length=255)),
                ('is_active', models.BooleanField(default=True, help_text='Events for an inactive target are held until it is active again.')),
                ('is_ordered', models.BooleanField(default=False, help_text='Send events of one ordering key one at a time, in the order they were fired.')),
                ('is_hidden', models.BooleanField(default=False, editable=False, help_text='Made by fire(urls=…), shown to nobody.')),
                ('is_rest_hook', models.BooleanField(default=False, editable=False, help_text='Made by hooks/ of the API, and goes with its last hook.')),
                ('creation_key', djwebhooks.database.ExactCharField(editable=False, max_length=64, null=True, unique=True)),
                ('creation_request', djwebhooks.database.ExactCharField(blank=True, editable=False, max_length=64)),
                ('secrets', models.TextField(default=djwebhooks.models.keyring.new_secrets, editable=False)),
                ('headers', djwebhooks.models.sealed.SealedField(blank=True, default=dict, help_text='Additional request headers, name to value.')),
                ('authentication', djwebhooks.models.sealed.SealedField(blank=True, default=dict, editable=False, help_text='How the receiver is told who sends: a type and its parts.')),
                ('client_certificate', djwebhooks.models.sealed.SealedField(blank=True, default=str, editable=False, help_text='For receivers that want one: the certificate chain and its key, in PEM.')),
                ('envelope', models.CharField(blank=True, choices=[('standard', 'standard'), ('flat', 'flat'), ('cloudevents', 'cloudevents'), ('cloudevents-binary', 'cloudevents-binary')], help_text="How the body is wrapped; empty is the setting's.", max_length=24)),
                ('sender', djwebhooks.database.ExactCharField(blank=True, help_text="Who writes and sends: a name of DJWEBHOOKS_SENDERS; empty is the event's.", max_length=64)),
                ('version', models.CharField(blank=True, default=djwebhooks.models.endpoints.version_of_new, help_text='The version of payloads that it gets, where an event has it; empty is the current one.', max_length=32)),
                ('signatures', models.CharField(blank=True, choices=[('v1', 'v1'), ('v1a', 'v1a'), ('v1 v1a', 'v1 and v1a')], help_text="What it is signed with: v1 (a shared secret), v1a (a public key) or both; empty is the setting's.", max_length=16)),
                ('filters', models.JSONField(blank=True, help_text='What payloads must be like, by the event that it is for: {"order.*": {"status": ["paid"]}}.', null=True)),
                ('retry_schedule', models.JSONField(blank=True, help_text="Seconds between attempts, such as [5, 300, 1800]; empty is the setting's.", null=True)),
                ('rate_limit', models.FloatField(blank=True, help_text='Requests at most in each period; empty is no limit.', null=True)),
                ('rate_period', models.CharField(choices=[('second', 'second'), ('minute', 'minute'), ('hour', 'hour')], default='second', help_text='What the rate limit is for. Requests are spread evenly over it.', max_length=6)),
                ('concurrency_limit', models.PositiveIntegerField(blank=True, help_text="Requests in flight at most; empty is a fair share of the worker's.", null=True)),
                ('created_at', models.DateTimeField(db_default=djwebhooks.database.DatabaseNow())),
                ('modified_at', models.DateTimeField(auto_now=True)),
                ('owner', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='webhook_targets', to=owner_model())),
            ],
            options={
                'verbose_name': 'webhook target',
                'db_table': 'djw_target',
                'ordering': ['-id'],
                'permissions': [('add_system_target', "Can make targets that see every owner's events")],
            },
        ),
        migrations.CreateModel(
            name='Worker',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='What it is part of.', max_length=16)),
                ('place', models.CharField(help_text='Its host and process.', max_length=255)),
                ('started_at', models.DateTimeField(db_default=djwebhooks.database.DatabaseNow())),
                ('expires_at', models.DateTimeField()),
            ],
            options={
                'db_table': 'djw_worker',
            },
        ),
        migrations.CreateModel(
            name='Event',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=djwebhooks.uid.uuid7, editable=False, help_text='The webhook-id.', unique=True)),
                ('name', djwebhooks.database.ExactCharField(max_length=255)),
                ('identifier', djwebhooks.database.ExactCharField(blank=True, max_length=255)),
                ('is_broadcast', models.BooleanField(default=False)),
                ('is_published', models.BooleanField(default=False, help_text='It came through the API, so there it is shown to, and taken back by, who may publish.')),
                ('ordering_key', djwebhooks.database.ExactCharField(blank=True, max_length=255)),
                ('hook', models.CharField(blank=True, help_text='The function that builds the payload.', max_length=255)),
                ('call', models.TextField(blank=True, help_text="The function's captured arguments, until they are used.")),
                ('payload', models.TextField(blank=True, help_text="The payload's JSON text, once it is built.")),
                ('sender', djwebhooks.database.ExactCharField(blank=True, help_text="Who writes and sends it; empty is the setting's.", max_length=64)),
                ('version', models.CharField(blank=True, help_text='What the version that the payload is in is called, if anything.', max_length=32)),
                ('versions', models.TextField(blank=True, editable=False, help_text="The payload's text in other versions, by their names.")),
                ('target_ids', models.TextField(blank=True, help_text='The targets of an event that goes straight to URLs.')),
                ('subjects', models.TextField(blank=True, editable=False, help_text='What it is about, until that is indexed at its dispatch.')),
                ('only_key', models.CharField(blank=True, editable=False, help_text='The key that alone signs it; empty is all that are live.', max_length=43)),
                ('idempotency_key', djwebhooks.database.ExactCharField(blank=True, max_length=255)),
                ('idempotency_digest', djwebhooks.database.ExactCharField(editable=False, max_length=64, null=True, unique=True)),
                ('content_digest', djwebhooks.database.ExactCharField(blank=True, editable=False, max_length=64)),
                ('created_at', models.DateTimeField(db_default=djwebhooks.database.DatabaseNow())),
                ('deliver_at', models.DateTimeField(blank=True, null=True)),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('dispatched_at', models.DateTimeField(blank=True, null=True)),
                ('coalesce', models.FloatField(blank=True, help_text='Seconds that it waits at most for newer ones to take its place; empty if none may.', null=True)),
                ('dispatch_cursor', models.BigIntegerField(default=0, help_text='The last target that has its delivery, while dispatching.')),
                ('build_attempts', models.PositiveSmallIntegerField(default=0)),
                ('build_due_at', models.DateTimeField(blank=True, null=True)),
                ('build_error', models.TextField(blank=True)),
                ('erased_at', models.DateTimeField(blank=True, help_text='When its payload and its answers were erased.', null=True)),
                ('owner', models.ForeignKey(blank=True, db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=owner_model())),
            ],
            options={
                'db_table': 'djw_event',
                'ordering': ['-id'],
                'permissions': [('erase_event', 'Can erase the data of events')],
            },
        ),
        migrations.CreateModel(
            name='Body',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('format', djwebhooks.database.ExactCharField(max_length=128)),
                ('content', models.BinaryField()),
                ('event', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='bodies', to='djwebhooks.event')),
            ],
            options={
                'verbose_name_plural': 'bodies',
                'db_table': 'djw_body',
            },
        ),
        migrations.CreateModel(
            name='Subject',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.CharField(max_length=32)),
                ('event', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='djwebhooks.event')),
            ],
            options={
                'db_table': 'djw_subject',
                'indexes': [models.Index(fields=['event'], name='djw_subject_event')],
                'constraints': [models.UniqueConstraint(fields=('digest', 'event'), name='djw_subject_once_per_event')],
            },
        ),
        migrations.CreateModel(
            name='Lane',
            fields=[
                ('target', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='lane', serialize=False, to='djwebhooks.webhooktarget')),
                ('tail', models.BigIntegerField(default=0, help_text='The last sequence number given out.')),
                ('version', models.BigIntegerField(default=0, help_text='Grows whenever work may have become due.')),
                ('due_at', models.DateTimeField(help_text='When there is something to do next; empty when there is nothing.', null=True)),
                ('holder', models.BigIntegerField(help_text='The worker that holds the lease.', null=True)),
                ('token', models.BigIntegerField(default=0, help_text='The fencing token: grows with every lease.')),
                ('is_ordered', models.BooleanField(default=False, help_text='Whether its deliveries are lined up by ordering key; empty while they are being.', null=True)),
                ('failing_since', models.DateTimeField(null=True)),
                ('failure_count', models.PositiveIntegerField(default=0, help_text='Failed attempts since the last success.')),
                ('failure', models.CharField(blank=True, help_text='What went wrong last, in a word.', max_length=64)),
                ('held_until', models.DateTimeField(help_text='Nothing is sent before: it cools down, or the receiver asked for it.', null=True)),
                ('suspended_at', models.DateTimeField(help_text='Since when only probes are sent.', null=True)),
                ('cooldown_count', models.PositiveIntegerField(default=0, help_text='Cool-downs since it was last fully trusted.')),
                ('recovering_since', models.DateTimeField(help_text='Since when it is sent to at a rising rate.', null=True)),
                ('disabled_at', models.DateTimeField(null=True)),
                ('disabled_reason', models.CharField(blank=True, max_length=64)),
                ('next_free_at', models.DateTimeField(help_text="The rate limit's next free instant.", null=True)),
                ('access_token', djwebhooks.models.sealed.SealedField(blank=True, default=dict, help_text='What a token server gave for its target, until when.')),
                ('permission', models.JSONField(blank=True, default=dict, help_text='What its receiver allowed to whom, and where that was.')),
                ('key_checks', models.JSONField(default=dict, help_text='When which URL last accepted, and last refused, a key alone.')),
            ],
            options={
                'db_table': 'djw_lane',
            },
        ),
        migrations.CreateModel(
            name='Replay',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=djwebhooks.uid.uuid7, editable=False, unique=True)),
                ('requested_by', models.CharField(blank=True, help_text='Who wanted it.', max_length=255)),
                ('requester_pk', models.CharField(blank=True, help_text='The primary key of the user who wanted it.', max_length=255)),
                ('requested_through', models.CharField(choices=[('admin', 'Admin'), ('api', 'Api'), ('command', 'Command'), ('portal', 'Portal'), ('python', 'Python')], max_length=7)),
                ('is_retry', models.BooleanField(default=False, help_text='Of one delivery, by its retry.')),
                ('criteria_text', models.TextField(help_text='Which deliveries, as JSON.', verbose_name='criteria')),
                ('rate', models.FloatField(default=0, help_text='Deliveries per second; 0 for a retry, which is made at once.')),
                ('count', models.BigIntegerField(help_text='How many there were when it was asked for.')),
                ('reopened_count', models.BigIntegerField(default=0, help_text='How many of them were made pending again.')),
                ('cursor', models.BigIntegerField(default=0, help_text='The last delivery that was looked at.')),
                ('last', models.BigIntegerField(default=0, help_text='The last delivery to look at.')),
                ('created_at', models.DateTimeField(db_default=djwebhooks.database.DatabaseNow())),
                ('next_at', models.DateTimeField(db_default=djwebhooks.database.DatabaseNow(), help_text='When the next ones are reopened.')),
                ('cancelled_at', models.DateTimeField(blank=True, null=True)),
                ('cancelled_by', models.CharField(blank=True, max_length=255)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('owner', models.ForeignKey(blank=True, db_constraint=False, db_index=False, help_text="Whose deliveries they are, if one owner's.", null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=owner_model())),
            ],
            options={
                'db_table': 'djw_replay',
                'ordering': ['-id'],
                'permissions': [('replay_everybody', 'Can replay the deliveries of all owners at once')],
            },
        ),
        migrations.CreateModel(
            name='Delivery',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('uid', models.UUIDField(default=djwebhooks.uid.uuid7, editable=False, unique=True)),
                ('sequence', models.BigIntegerField(help_text="Its place in the target's lane, contiguous from 1.")),
                ('ordering_key', djwebhooks.database.ExactCharField(blank=True, max_length=255)),
                ('status', models.CharField(choices=[('pending', 'Pending'), ('succeeded', 'Succeeded'), ('failed', 'Failed'), ('expired', 'Expired'), ('cancelled', 'Cancelled')], default='pending', max_length=9)),
                ('reason', models.CharField(blank=True, help_text='Why it has this status, in a word.', max_length=64)),
                ('trigger', models.CharField(choices=[('event', 'Event'), ('retry', 'Retry'), ('manual', 'Manual')], default='event', help_text='Of the next attempt.', max_length=6)),
                ('created_at', models.DateTimeField(db_default=djwebhooks.database.DatabaseNow())),
                ('due_at', models.DateTimeField(blank=True, help_text='When it is tried next; empty while another goes first.', null=True)),
                ('expires_at', models.DateTimeField(blank=True, null=True)),
                ('finished_at', models.DateTimeField(blank=True, null=True)),
                ('attempt_count', models.PositiveIntegerField(default=0)),
                ('schedule_offset', models.PositiveIntegerField(default=0, help_text='Attempts made before the schedule began again.')),
                ('previous_status', models.CharField(blank=True, db_default='', help_text='The status that it had before it was made pending again.', max_length=9)),
                ('is_replaceable', models.BooleanField(db_default=False, default=False, help_text='Whether newer events make it out of date.')),
                ('coalesce_until', models.DateTimeField(blank=True, help_text='As long as it is set, a newer event may take its place; it is not sent before.', null=True)),
                ('coalesced_count', models.PositiveIntegerField(db_default=0, default=0, help_text='Earlier events whose place it has taken.')),
                ('replaced_by', models.UUIDField(blank=True, help_text='The delivery that has taken its place.', null=True)),
                ('replay', models.ForeignKey(blank=True, db_constraint=False, db_index=False, help_text='What made it pending again last.', null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='deliveries', to='djwebhooks.replay')),
                ('event', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='deliveries', to='djwebhooks.event')),
                ('target', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='deliveries', to='djwebhooks.webhooktarget')),
            ],
            options={
                'verbose_name_plural': 'deliveries',
                'db_table': 'djw_delivery',
                'ordering': ['-id'],
            },
        ),
        migrations.CreateModel(
            name='Subscription',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('event', djwebhooks.database.ExactCharField(max_length=255)),
                ('target', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='subscriptions', to='djwebhooks.webhooktarget')),
            ],
            options={
                'db_table': 'djw_subscription',
            },
        ),
        migrations.CreateModel(
            name='TargetOwner',
            fields=[
                ('target', models.OneToOneField(db_constraint=False, on_delete=django.db.models.deletion.DO_NOTHING, primary_key=True, related_name='+', serialize=False, to='djwebhooks.webhooktarget')),
                ('owner', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to=owner_model())),
            ],
            options={
                'db_table': 'djw_target_owner',
                'indexes': [models.Index(fields=['owner'], name='djw_target_owner_targets')],
            },
        ),
        migrations.CreateModel(
            name='Attempt',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('number', models.PositiveIntegerField()),
                ('trigger', models.CharField(choices=[('event', 'Event'), ('retry', 'Retry'), ('manual', 'Manual')], max_length=6)),
                ('url', models.TextField(help_text='Where it was sent.')),
                ('started_at', models.DateTimeField()),
                ('duration', models.FloatField(help_text='Seconds from the first step to the last byte.')),
                ('status_code', models.PositiveSmallIntegerField(null=True)),
                ('response_headers', models.JSONField(default=dict)),
                ('response_body', models.TextField(blank=True, help_text='The beginning of it.')),
                ('error', models.CharField(blank=True, help_text='What went wrong, in a word; empty when there was an answer.', max_length=32)),
                ('detail', models.TextField(blank=True, help_text='What went wrong, in a sentence.')),
                ('address', models.CharField(blank=True, help_text='The IP address that was connected to.', max_length=45)),
                ('lookup_ms', models.PositiveIntegerField(help_text='Milliseconds to look the name up, if it was.', null=True)),
                ('connect_ms', models.PositiveIntegerField(help_text='Milliseconds to connect, unless a connection was kept.', null=True)),
                ('tls_ms', models.PositiveIntegerField(help_text='Milliseconds of the TLS handshake, if there was one.', null=True)),
                ('first_byte_ms', models.PositiveIntegerField(help_text="Milliseconds from the request to an answer's first byte.", null=True)),
                ('delivery', models.ForeignKey(db_constraint=False, db_index=False, on_delete=django.db.models.deletion.DO_NOTHING, related_name='attempts', to='djwebhooks.delivery')),
            ],
            options={
                'db_table': 'djw_attempt',
                'ordering': ['number'],
                'constraints': [models.UniqueConstraint(fields=('delivery', 'number'), name='djw_attempt_number')],
            },
        ),
        migrations.AddIndex(
            model_name='event',
            index=djwebhooks.database.PartialIndex(fields=['id'], name='djw_event_waiting', otherwise=['dispatched_at', 'deliver_at'], where=models.Q(('deliver_at__isnull', True), ('dispatched_at__isnull', True))),
        ),
        migrations.AddIndex(
            model_name='event',
            index=djwebhooks.database.PartialIndex(fields=['deliver_at'], name='djw_event_planned', otherwise=[], where=models.Q(('deliver_at__isnull', False), ('dispatched_at__isnull', True))),
        ),
        migrations.AddIndex(
            model_name='event',
            index=models.Index(fields=['owner', 'id'], name='djw_event_owner'),
        ),
        migrations.AddIndex(
            model_name='event',
            index=djwebhooks.database.PartialIndex(fields=['owner', 'id'], name='djw_event_published', otherwise=[], where=models.Q(('dispatched_at__isnull', True), ('is_published', True))),
        ),
        migrations.AddConstraint(
            model_name='body',
            constraint=models.UniqueConstraint(fields=('event', 'format'), name='djw_body_once_per_format'),
        ),
        migrations.AddIndex(
            model_name='lane',
            index=models.Index(fields=['holder', 'due_at'], name='djw_lane_free_due'),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=djwebhooks.database.PartialIndex(fields=['target', 'due_at'], name='djw_delivery_due', otherwise=['target', 'status', 'due_at', 'sequence'], where=models.Q(('due_at__isnull', False))),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=djwebhooks.database.PartialIndex(fields=['target', 'ordering_key', 'sequence'], name='djw_delivery_key', otherwise=['target', 'status', 'ordering_key', 'sequence'], where=models.Q(('status', 'pending'))),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=djwebhooks.database.PartialIndex(fields=['target', 'ordering_key'], name='djw_delivery_replaceable', otherwise=[], where=models.Q(('coalesce_until__isnull', False), ('status', 'pending'))),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=djwebhooks.database.PartialIndex(fields=['status', 'id'], name='djw_delivery_unsuccessful', otherwise=['status', 'id'], where=models.Q(('status__in', ['failed', 'expired', 'cancelled']))),
        ),
        migrations.AddIndex(
            model_name='delivery',
            index=djwebhooks.database.PartialIndex(fields=['replay', 'id'], name='djw_delivery_replay', otherwise=['replay', 'id'], where=models.Q(('replay__isnull', False))),
        ),
        migrations.AddIndex(
            model_name='replay',
            index=models.Index(fields=['finished_at', 'next_at'], name='djw_replay_running'),
        ),
        migrations.AddIndex(
            model_name='replay',
            index=models.Index(fields=['owner', 'id'], name='djw_replay_owner'),
        ),
        migrations.AddConstraint(
            model_name='delivery',
            constraint=models.UniqueConstraint(fields=('event', 'target'), name='djw_delivery_once_per_target'),
        ),
        migrations.AddConstraint(
            model_name='delivery',
            constraint=models.UniqueConstraint(fields=('target', 'sequence'), name='djw_delivery_sequence'),
        ),
        migrations.AddConstraint(
            model_name='subscription',
            constraint=models.UniqueConstraint(fields=('event', 'target'), name='djw_subscription_once'),
        ),
        # Those that are written to with each event.
        djwebhooks.database.VacuumAfter('event', 20_000),
        djwebhooks.database.VacuumAfter('delivery', 20_000),
        djwebhooks.database.VacuumAfter('lane', 5_000),
        djwebhooks.database.VacuumAfter('dispatcher', 1_000),
        djwebhooks.database.VacuumAfter('worker', 1_000),
    ]
