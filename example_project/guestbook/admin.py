"""The comments in the admin."""

from django.contrib import admin

from example_project.guestbook.models import Comment


@admin.register(Comment)
class CommentAdmin(admin.ModelAdmin):
    """Read, find and delete comments."""

    list_display = ["name", "message", "left_at"]
    search_fields = ["name", "message"]
    readonly_fields = ["left_at"]
