from django.db import migrations, models


def number_changes(apps, schema_editor):
    """Number what was committed before there were numbers, as far as its reports tell."""
    reports = apps.get_model('backups', 'RestoreReport').objects.using(schema_editor.connection.alias)
    number = 0
    for report in reports.filter(operation__in=['restore', 'reinit'], committed=True).order_by('started'):
        taken = report.package if report.operation == 'reinit' else report.options.get('safety_backup')
        if taken is True:  # it was to be taken, and there was nothing to change
            continue
        number += 1
        reports.filter(pk=report.pk).update(change=number, safety_backup=taken or '')


class Migration(migrations.Migration):

    dependencies = [
        ('backups', '0002_backup_pinned'),
    ]

    operations = [
        migrations.AddField(
            model_name='restorereport',
            name='change',
            field=models.BigIntegerField(help_text='place among the operations that changed something and were committed', null=True),
        ),
        migrations.AddField(
            model_name='restorereport',
            name='safety_backup',
            field=models.CharField(blank=True, help_text='package of what was there before the change', max_length=255),
        ),
        migrations.RunPython(number_changes, migrations.RunPython.noop),
    ]
