"""The API's routes: include them anywhere, also more than once."""

from rest_framework.routers import SimpleRouter

from djwebhooks.api import feed, hooks, views

# Paths, as regular expressions would hide what a URL looks like; without an app_name, as that may be included only once.
router = SimpleRouter(use_regex_path=False)
router.register("targets", views.TargetViewSet, "djwebhooks-target")
router.register("events", views.EventViewSet, "djwebhooks-event")
router.register("deliveries", views.DeliveryViewSet, "djwebhooks-delivery")
router.register("attempts", views.AttemptViewSet, "djwebhooks-attempt")
router.register("replays", views.ReplayViewSet, "djwebhooks-replay")
router.register("event-types", views.EventTypeViewSet, "djwebhooks-event-type")
router.register("hooks", hooks.HookViewSet, "djwebhooks-hook")
router.register("feed", feed.FeedViewSet, "djwebhooks-feed")

urlpatterns = router.urls
