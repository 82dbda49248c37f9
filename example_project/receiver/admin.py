"""What was printed, in the receiver's own admin, beside the messages of the inbox."""

from django.contrib import admin

from example_project.receiver.models import Printed


@admin.register(Printed)
class PrintedAdmin(admin.ModelAdmin):
    """Comments that the receiver was told of."""

    list_display = ("name", "text", "left_at")
