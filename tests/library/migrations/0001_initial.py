"""The library's tables."""

import django.db.models.deletion
import django.db.models.expressions
import tests.library.fields
import uuid
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Author',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=100)),
                ('born_on', models.DateField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='Item',
            fields=[
                ('uid', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('title', models.CharField(max_length=100)),
                ('acquired_at', models.DateTimeField(null=True)),
                ('loan_time', models.DurationField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='Shelf',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=50)),
                ('width', models.IntegerField(db_default=90)),
                ('depth', models.IntegerField(default=30)),
                ('area', models.GeneratedField(db_persist=True, expression=django.db.models.expressions.CombinedExpression(models.F('width'), '*', models.F('depth')), output_field=models.IntegerField())),
            ],
        ),
        migrations.CreateModel(
            name='Book',
            fields=[
                ('item_ptr', models.OneToOneField(auto_created=True, on_delete=django.db.models.deletion.CASCADE, parent_link=True, primary_key=True, serialize=False, to='library.item')),
                ('genre', models.CharField(choices=[('novel', 'Novel'), ('poetry', 'Poetry')], default='novel', max_length=10)),
                ('price', models.DecimalField(decimal_places=2, max_digits=8, null=True)),
                ('weight', models.FloatField(null=True)),
                ('cover', models.FileField(blank=True, upload_to='covers')),
                ('scan', models.BinaryField(null=True)),
                ('details', models.JSONField(default=dict)),
                ('scanner', models.GenericIPAddressField(null=True)),
                ('place', tests.library.fields.PlaceField(max_length=20, null=True)),
                ('author', models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='books', to='library.author')),
            ],
            bases=('library.item',),
        ),
        migrations.CreateModel(
            name='Donation',
            fields=[
                ('number', models.BigAutoField(primary_key=True, serialize=False)),
                ('donor', models.CharField(max_length=50)),
            ],
        ),
        migrations.CreateModel(
            name='Ticket',
            fields=[
                ('number', models.IntegerField(db_default=7, primary_key=True, serialize=False)),
                ('note', models.CharField(blank=True, max_length=50)),
            ],
        ),
        migrations.CreateModel(
            name='Seat',
            fields=[
                ('pk', models.CompositePrimaryKey('desk', 'number', blank=True, editable=False, primary_key=True, serialize=False)),
                ('desk', models.CharField(max_length=20)),
                ('number', models.IntegerField()),
            ],
        ),
        migrations.CreateModel(
            name='Gift',
            fields=[
                ('donation_ptr', models.OneToOneField(auto_created=True, on_delete=django.db.models.deletion.CASCADE, parent_link=True, to='library.donation')),
                ('item_ptr', models.OneToOneField(auto_created=True, on_delete=django.db.models.deletion.CASCADE, parent_link=True, primary_key=True, serialize=False, to='library.item')),
                ('wish', models.CharField(blank=True, max_length=50)),
            ],
            bases=('library.item', 'library.donation'),
        ),
        migrations.CreateModel(
            name='Paperback',
            fields=[
            ],
            options={
                'proxy': True,
                'indexes': [],
                'constraints': [],
            },
            bases=('library.book',),
        ),
    ]
