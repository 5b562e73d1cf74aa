from django.db import migrations, models


def pin_safety_backups(apps, schema_editor):
    backups = apps.get_model('backups', 'Backup').objects.using(schema_editor.connection.alias)
    backups.filter(kind='safety').update(pinned=True)


class Migration(migrations.Migration):

    dependencies = [
        ('backups', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='backup',
            name='pinned',
            field=models.BooleanField(default=False, help_text='not to be deleted: what undoing needs, or somebody has kept'),
        ),
        migrations.RunPython(pin_safety_backups, migrations.RunPython.noop),
    ]
