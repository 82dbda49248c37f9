"""Read the guestbook and sign it."""

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from example_project.guestbook.forms import CommentForm
from example_project.guestbook.models import Comment, find_keeper
from example_project.guestbook.webhooks import comment_created

#: Comments on one page.
PAGE = 10


@require_http_methods(["GET", "HEAD", "POST"])
def guestbook(request: HttpRequest) -> HttpResponse:
    """Show the comments, newest first, and take a new one."""
    form = CommentForm(request.POST or None)
    if form.is_valid():
        comment = form.save()
        # In the request's transaction: the webhook is sent if, and only if, the comment is kept.
        comment_created(comment, owner=find_keeper())
        messages.success(request, f"Thank you for signing, {comment.name}!")
        return redirect("guestbook")
    page = Paginator(Comment.objects.all(), PAGE).get_page(request.GET.get("page"))
    context = {"form": form, "page": page, "digits": f"{page.paginator.count:06}", "keeper": find_keeper()}
    return render(request, "guestbook/guestbook.html", context)
