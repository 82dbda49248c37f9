"""Make the table."""

from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Printed',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('message_id', models.CharField(max_length=255)),
                ('name', models.CharField(max_length=80)),
                ('text', models.TextField()),
                ('left_at', models.DateTimeField()),
            ],
            options={
                'verbose_name_plural': 'printed',
                'ordering': ['-id'],
            },
        ),
    ]
